"""The student leaves the project: exported folders, what they say of themselves, and predictions from them.

Begin with `finished.find_student`, the student of a result, and `folder.export_student`, which writes it.
"""
