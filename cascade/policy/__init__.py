"""Pure decisions: accept or escalate, spend and limits, calibration maps. Private to cascade."""
