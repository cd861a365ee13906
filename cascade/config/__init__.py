"""The graph language: schema, loading with file:line errors, static checks, drawing."""
