"""How annotations are checked while tests run."""

from beartype import BeartypeConf, beartype

# an int is fine where a float is asked for
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
