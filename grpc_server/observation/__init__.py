"""What is told about calls, to a log or to a tracer; never what they carry.

    record       one call that has ended
    heading      which model a request names, from its first bytes
    access_log   a line for some calls
    traces       a span for each, by OpenTelemetry

Without observers no call is looked at.
"""
