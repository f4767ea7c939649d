"""Our client, blocking: `our_client.py [ADDRESS]`."""

import sys

import numpy as np
from digit import THREE

from ferryline.grpc_server.client import Client, InputError

address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8001"

with Client(address, timeout=5) as client:
    client.wait_until_ready("digits")

    answer = client.infer("digits", THREE)
    by = answer.model
    print("digit", answer["label"][0], "of version", by.version, "generation", by.generation)

    # numbers of other dtypes are converted, what does not fit is told before it is sent
    answer = client.infer("digits", THREE.astype(int), outputs=["probabilities"])
    print("probabilities", answer["probabilities"].shape)
    try:
        client.infer("digits", THREE[0])
    except InputError as error:
        print("not sent:", error)

    # many requests over one call, sent ahead of their answers
    with client.stream("digits") as stream:
        batches = (np.repeat(THREE, 256, axis=0) for _ in range(100))
        print("rows", sum(len(answer["label"]) for answer in stream.answers(batches)))
