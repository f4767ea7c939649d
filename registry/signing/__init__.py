"""Ed25519 signatures of manifests and channel entries: keys on disk, who signs, and whom to trust.

    canonical   what a signature covers
    pem         keys as text
    keyfiles    private keys on disk
    trust       public keys on disk, with how long each may sign
    signer      signs documents
    verifier    refuses documents that nobody trusted vouches for
    seal        what a registry does about both
    setup       all of it from the settings

`cryptography` is imported where a key is used, so that a program without keys does not wait for it.
"""
