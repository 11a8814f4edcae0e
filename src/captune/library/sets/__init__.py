"""Prepared folders and jobs as libraries: their captions are corrected there, and go back into their files."""
