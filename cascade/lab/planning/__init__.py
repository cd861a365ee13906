"""Build or buy: a year of one strong model, of the cascade, and of an expert to be trained."""
