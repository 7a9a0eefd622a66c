"""Floor 3: where records live. Dumb: load, save, scan. No rule of the protocol is here."""
