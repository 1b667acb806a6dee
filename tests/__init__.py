"""The tests mirror `src/distill3d`; every call of a public function is checked against its shapes."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
