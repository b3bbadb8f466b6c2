"""The scenarios of trading.md 8, a module per theme, and what several of them share.

| scenario | module |
|---|---|
| F0 bring-up | `bring_up` |
| F1 one packet on 1h | `one_packet` |
| F2 the learning pass | `learning_pass` |
| F3 gates of the decision maker | `dm_gates` |
| F4 edges of the portfolio manager | `pm_edges`, orders in `pm_orders` |
| F5 tuning flips | `tuning_flips` |
| F6 missed and skipped | `missed` |
| F7 the full system | `full_system` |
| F8 trim pool and DX | `pool` |
| F9 blocks | `blocks` |
| F10 A and E | `appetite`, the phase model in `phases` |
| F11 exposure | `exposure` |
| F12 telemetry | `telemetry` |
| F13 replay | `replay`, little evidence in `few_days` |
| F14 data | `data`, walks of prices in `walks` |
| F15 crash and concurrency | `crash` |
| F17 parity | `parity` |
| LONG thirty days | `long_run` |

`markets` makes seeded markets with something to learn, `learned` asks what was learnt, `positions` asks about positions
and orders. A scenario begins with what happens, and asks stage by stage, upstream first: the first question that is not
answered as expected names what is broken.
"""
