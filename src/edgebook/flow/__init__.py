"""The flow campaign (mission 6): the real system is started, packets go in at the ingress, everything else is a query.

Nothing here calls a job, a rule or a fold of the system. A scenario writes a market down (`story`), starts the system
as a process of its own (`running`), injects packets, lets virtual time pass, and asks the database (`book`, `check`)
until every packet has arrived, or one has died at a stage that the query names.
"""
