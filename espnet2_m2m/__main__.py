"""`python -m espnet2_m2m NAME [ARGUMENT ...]`: the console script `espnet2_m2m` where pip has not put it."""

from espnet2_m2m.bin import main

if __name__ == "__main__":
    main()
