"""The life of jobs on rank 0: ingest, the state machine, queue, dispatch, lists and event logs.

``manager`` decides (pure: requests and reports in, actions out), ``service`` connects it to a
broker. Read ``states`` first, then ``arrays``, then ``manager``.
"""
