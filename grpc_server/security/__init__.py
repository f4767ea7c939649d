"""Who may ask this server, and over what.

    rights         what a caller may be allowed, and what each RPC asks for
    tokens         the file of bearer tokens, of which it holds the digests only
    guard          lets a call pass, or says why not
    certificates   a certificate with its key, read and proved to belong together
    tls            the same for gRPC and for HTTP, exchanged while they listen
    setup          all of it, from the settings

Nothing here is asked on the way of a request when neither tokens nor certificates are set.
"""
