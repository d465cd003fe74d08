"""Members of a population: one trial, its files, its journal."""
