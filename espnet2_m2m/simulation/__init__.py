"""Simulated meetings: rooms.py and scene.py draw them, rir.py and render.py make them sound."""
