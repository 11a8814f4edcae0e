"""The library: a folder of images with a memory of what they are and of every caption that they had."""
