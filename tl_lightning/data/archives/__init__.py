"""Files that lie within one file: members of zip and tar archives, rows of Parquet files; read where they lie.

The path of such a file goes on behind that of the archive, ``photos.zip/cats/1.jpg``, ``shard-000.tar/17.jpg`` or
``train.parquet/17.image``, and `files` opens it as it opens any other. Nothing is unpacked, but for compressed tar
archives, which cannot be read from the middle.
"""
