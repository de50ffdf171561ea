"""Parquet: files of past days, their export, and what a run reads of them."""
