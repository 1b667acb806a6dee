"""Scenes that need no download: a ray caster in torch, endless furnished rooms, and one place to get to know."""
