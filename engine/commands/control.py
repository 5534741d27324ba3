"""`tidegate control`."""

import click

from engine.commands.options import bootstrap_option, config_option, required_config, with_bootstrap


@click.command()
@config_option
@bootstrap_option
def control(config_file: str | None, bootstrap: str | None) -> None:
    """Watch decisions: their quality once labels come, drift, cases, roll-outs, and whether to train anew.

    Its figures are on control.listen: /quality, /drift, /cases, /models, and /metrics for Prometheus.
    """
    from engine.control.serve import serve

    serve(with_bootstrap(required_config(config_file), bootstrap))
