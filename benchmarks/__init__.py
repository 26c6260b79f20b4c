"""What this repository says about its own speed and memory, each figure printed by a command of its own."""
