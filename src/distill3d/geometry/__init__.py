"""Cameras, poses, alignment and what pointmaps say about cameras: pure functions of tensors."""
