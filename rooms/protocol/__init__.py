"""The words on the wire: types, commands, events, errors and their codecs. No IO, no Django."""
