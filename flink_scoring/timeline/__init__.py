"""The timeline of a partition: which generation of the channel scores which offsets, also after a restore.

A pandas function of Flink has no state, but the source's offsets are stable. So what a partition's records
were scored by is written beside the registry's logs, before they are scored, and read after a restore.

rules       what one attempt of a job knows of a partition and may do on it; pure
pace        how far ahead to reserve, from the rate of the stream; pure
shares      which rows of a batch belong to which generation; pure
reservations  how far earlier attempts may have come, and who need no longer say so; pure
documents   an entry of the log, and how far an attempt may have come
journal     both in the registry's store
recall      older generations, loaded again for the records that they scored
models      the generations that are at hand
partitions  what the thread that scores and the one that writes share
keeper      on the thread that scores: what may be scored now, and by what
writer      the thread that writes ahead of it
tidying     removes what is outdated
patience    waiting for the store
opening     puts it together for one subtask
"""
