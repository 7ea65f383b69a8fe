"""Simulated meetings: rooms.py, turns.py and scene.py draw them, rir.py and render.py make them sound."""
