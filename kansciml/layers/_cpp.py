def available():
    return False


def reason():
    return "not built"
