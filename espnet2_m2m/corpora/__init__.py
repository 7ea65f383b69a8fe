"""Clean single-talker speech to simulate with: synthesised (demo.py) or any Kaldi data dir."""
