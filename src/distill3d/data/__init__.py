"""Photos, videos and scene folders in; a manifest, view groups and `Views` out."""
