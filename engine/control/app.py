"""For Faust's own commands: `faust -A engine.control.app worker`, `agents`, `tables`.

The configuration is found as everywhere, save that there is no flag: TIDEGATE_CONFIG, or ./tidegate.toml.
"""

from engine.commands.options import required_config, with_bootstrap
from engine.control.build import control_app

app, plane = control_app(with_bootstrap(required_config(None), None))
