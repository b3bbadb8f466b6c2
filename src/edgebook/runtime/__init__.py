"""The rim: settings, assembly, the two drivers of the JOBS table, replay, ingress. Clock and environment live here
and in adapters."""
