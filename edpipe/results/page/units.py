"""Numbers as people read them: percent, points, grouped digits, MACs and sizes."""


def percent(share: float, digits: int = 1) -> str:
    """A share of 0 to 1 in percent; ends of intervals are kept inside 0 to 100.

    >>> percent(0.97312), percent(1.004)
    ('97.3 %', '100.0 %')
    """
    return f"{min(max(share, 0.0), 1.0) * 100:.{digits}f} %"


def points(difference: float, digits: int = 1) -> str:
    """A difference of shares in percentage points, signed.

    >>> points(-0.0123), points(0.0)
    ('−1.2 pp', '0.0 pp')
    """
    text = f"{abs(difference) * 100:.{digits}f}"
    sign = "" if float(text) == 0 else "−" if difference < 0 else "+"
    return f"{sign}{text} pp"


def grouped(count: int) -> str:
    """A count with thousands apart.

    >>> grouped(-24000)
    '−24,000'
    """
    return f"{count:,}".replace("-", "−")


def short(number: float) -> str:
    """Four significant digits.

    >>> short(0.123456), short(24000.0)
    ('0.1235', '2.4e+04')
    """
    return f"{number:.4g}"


def macs(count: int) -> str:
    """Multiply-accumulates with the unit that fits.

    >>> macs(12_345_678), macs(999)
    ('12.3 MMACs', '999 MACs')
    """
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6)):
        if count >= size:
            return f"{count / size:.3g} {unit}MACs" if count < 1000 * size else f"{count / size:,.0f} {unit}MACs"
    return f"{count:,} MACs"


def size(num_bytes: int) -> str:
    """Bytes with the unit that fits.

    >>> size(1_234_567_890), size(52_000_000)
    ('1.23 GB', '52 MB')
    """
    return f"{num_bytes / 10**9:.3g} GB" if num_bytes >= 10**9 else f"{num_bytes / 10**6:.3g} MB"
