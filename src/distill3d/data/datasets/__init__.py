"""One file per kind of source; each has `scan(root) -> Iterator[ManifestRow]`."""
