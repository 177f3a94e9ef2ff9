"""Variables that callers may set: none by which a program loads, runs, trusts or tells something else."""

from __future__ import annotations

import pytest

from rexec_server.policy.environment import check_fixed_name, check_slot_name

NAMED = """
    DOTNET_STARTUP_HOOKS CORECLR_PROFILER_PATH GTK_MODULES GIO_EXTRA_MODULES QT_PLUGIN_PATH LIBGL_DRIVERS_PATH AWKPATH
    AWKLIBPATH ZDOTDIR FPATH VIMINIT EXINIT PSQLRC SSLKEYLOGFILE INPUTRC WGETRC RUSTC_WRAPPER GOFLAGS MAVEN_OPTS
    ERL_FLAGS JULIA_LOAD_PATH GUILE_LOAD_PATH KRB5_CONFIG HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY
"""
ALIKE = "QT_MODULES VDPAU_DRIVERS_PATH GST_PLUGIN_PATH ERL_LOAD_PATH APP_HOOKS CCACHE_WRAPPER SCREENRC MAILRC"


@pytest.mark.parametrize("name", [*NAMED.split(), *ALIKE.split()])
def test_variables_that_lead_programs_elsewhere(name: str) -> None:
    """A rule may fix such a variable, and no caller fills it."""
    with pytest.raises(ValueError, match=f"^{name} could make programs load or run something else"):
        check_slot_name(name)
    check_fixed_name(name)


@pytest.mark.parametrize("name", ["PROXY", "MODULES", "HOOKS", "WRAPPERS", "RCS", "PROXY_NAME", "SOURCE"])
def test_what_only_looks_alike_may_be_set(name: str) -> None:
    """A pattern is for whole names."""
    check_slot_name(name)
