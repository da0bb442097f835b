"""Floors 1: layers and encoders."""
