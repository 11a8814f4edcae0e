"""Prompts: templates that are filled with what is known of an image, several of them, and styles."""
