from longstate.ops._numba import tiles

globals().update({name: getattr(tiles, name) for name in dir(tiles) if name[0] != "_"})
