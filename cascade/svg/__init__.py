"""SVG pictures without scripts: elements, one palette for light, dark and print, and one plot.

The drawing of a graph, the viewer's charts and the report's plots are made of these.
"""

from cascade.svg._elements import element, text
from cascade.svg._palette import DARK, LIGHT, PRINT, SERIES, Palette, style_sheet, variables
from cascade.svg._plot import Axis, Frame, Plot, Point, axis_around, fluid, marker

__all__ = [
    "DARK",
    "LIGHT",
    "PRINT",
    "SERIES",
    "Axis",
    "Frame",
    "Palette",
    "Plot",
    "Point",
    "axis_around",
    "element",
    "fluid",
    "marker",
    "style_sheet",
    "text",
    "variables",
]
