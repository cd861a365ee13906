"""One revision for each version of the tables. Released revisions are never edited."""
