#!/bin/sh
# For RUSTC_WORKSPACE_WRAPPER: cargo runs rustc by this for the crates of this workspace, which are then
# a node that speaks the versions of the wires before these. What they depend on is built once.
exec "$@" --cfg anycast_previous_wire
