"""Layers that several networks share. Leaf names (`attn.qkv`, `norm1`, `mlp.fc1`) follow the field's checkpoints."""
