"""The renderer of the data set `rooms`: furnished rooms, path-traced by Blender, with exact maps."""
