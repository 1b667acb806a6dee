"""From any model's maps to one coherent reconstruction: cameras, depth, confidence, any number of views."""
