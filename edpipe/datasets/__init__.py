"""From raw images to one packed file, and which classes belong to which subset.

`readers/` knows the published layouts, `packing` turns images into blocks, `dataset_file` reads them back,
`partition` deals classes out. Imports `storage` and below. A new dataset is a module in `readers/`, a line in
`readers/by_name`, and its name in `params.plans.reader_names.READERS`; a plugin's is one function, and images in class
folders need an entry in params.yaml alone.
"""
