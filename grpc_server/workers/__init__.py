"""`ferry-server --workers N`: several processes that answer on the same ports, and one that leads them.

    supervisor  follows the registry, decides, counts, replaces; answers no request and knows no gRPC
    worker      answers requests; loads what the supervisor names, and serves what it says

One socket pair joins the supervisor and each worker. What goes over it, from the wire inwards:

    framing     bytes to messages and back; pure
    messages    what the two tell each other
    link        a socket that carries messages
    rounds      one question put to all workers, and what their answers mean together; pure
    briefing    what a new worker must be told; pure
    restarts    when a dead worker is replaced, and when that is given up; pure
    sums        counters of workers that come and go; pure
    crew        the workers of a supervisor: started, asked, replaced
    watching    asks them again and again, which shows those that hang
    counting    what all of them have counted
    leading     a follower whose versions are loaded by the crew
    led         a worker's models, as the supervisor tells of them
"""
