"""``tl configs``: the configurations that come with the package."""

import sys
from pathlib import Path

from tl_lightning.core.options import OptionParser
from tl_lightning.core.packaged import hint, packaged, summary_of
from tl_lightning.errors import UserError


def configs_command(args: list[str]) -> None:
    """Runs ``tl configs``: lists the packaged configurations, or prints one.

    Args:
        args: Nothing, or the name of one.

    Raises:
        UserError: If there is none of that name.
    """
    parser = OptionParser(
        "configs",
        "Lists the configurations that come with the package; tl fit --config NAME runs one as it is. With a NAME it "
        "prints that file: tl configs scenarios/vgg16 > mine.yaml is a start for your own.",
    )
    parser.add_argument("name", nargs="?", help="print this one")
    options = parser.parse_args(args)
    known = packaged("configs")
    if options.name is None:
        print(_listed(known))
    elif options.name in known:
        sys.stdout.write(known[options.name].read_text(encoding="utf-8"))
    else:
        raise UserError(f"{options.name} is no packaged configuration{hint('configs', options.name)}")


def _listed(known: dict[str, Path]) -> str:
    width = max(map(len, known), default=0)
    return "\n".join(f"{name:<{width}}  {summary_of(path)}" for name, path in known.items())
