package unseal

import (
	"bytes"
	"fmt"

	"github.com/btcsuite/btcd/btcutil/bech32"
)

const (
	checksumSymbols = 6
	symbolBits      = 5

	// alphabet is bech32's (BIP 173): no 1, b, i or o, which are easily mistaken.
	alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
)

// typoIn says what is wrong with a share, of small letters and with the right
// beginning, that its checksum does not fit. Where one character alone is wrong, it says
// which: that saves its holder from reading all of them again.
func typoIn(text []byte) error {
	symbols := make([]byte, 0, len(text))
	defer func() { clear(symbols[:cap(symbols)]) }()
	first := len(sharePrefix) + 1
	for i, c := range text[first:] {
		symbol := bytes.IndexByte([]byte(alphabet), c)
		if symbol < 0 {
			return fmt.Errorf("%w: its character %d is none of those that a share is made of", ErrTypo, first+i+1)
		}
		symbols = append(symbols, byte(symbol))
	}
	if len(text) != shareLength {
		return fmt.Errorf("%w: %s", ErrTypo, lengths(len(text)))
	}
	if at, found := wrongSymbol(symbols); found {
		return fmt.Errorf("%w: most likely in its character %d of %d", ErrTypo, first+at+1, shareLength)
	}
	return fmt.Errorf("%w: several of its characters are wrong", ErrTypo)
}

func lengths(got int) string {
	return fmt.Sprintf("it has %d characters, where there should be %d", got, shareLength)
}

// wrongSymbol finds the one symbol, from 0, that would have to be another for the checksum to
// fit. The checksum is linear over GF(2), but for a constant: by how much it
// misses depends on what was changed, not on the share. So what is compared here
// are checksums of errors, and the share is not written out again and again.
func wrongSymbol(symbols []byte) (at int, found bool) {
	data, got := symbols[:shareSymbols], symbols[shareSymbols:]
	miss := checksum(data) ^ pack(got)
	for i := range checksumSymbols {
		if rest := miss &^ (31 << (symbolBits * (checksumSymbols - 1 - i))); rest == 0 {
			return shareSymbols + i, true
		}
	}
	blank := make([]byte, shareSymbols)
	constant := checksum(blank)
	for i := range blank {
		var bits [symbolBits]uint32
		for b := range bits {
			blank[i] = 1 << b
			bits[b] = checksum(blank) ^ constant
		}
		blank[i] = 0
		for change := 1; change < 1<<symbolBits; change++ {
			var sum uint32
			for b, v := range bits {
				if change>>b&1 == 1 {
					sum ^= v
				}
			}
			if sum == miss {
				return i, true
			}
		}
	}
	return 0, false
}

// checksum returns the 30 bits that bech32m puts behind a share's symbols.
func checksum(data []byte) uint32 {
	text, err := bech32.EncodeM(sharePrefix, data)
	if err != nil {
		panic("unseal: a symbol of more than five bits") // all come from the alphabet
	}
	symbols := make([]byte, checksumSymbols)
	for i, c := range []byte(text[len(text)-checksumSymbols:]) {
		symbols[i] = byte(bytes.IndexByte([]byte(alphabet), c))
	}
	return pack(symbols)
}

func pack(symbols []byte) (bits uint32) {
	for _, s := range symbols {
		bits = bits<<symbolBits | uint32(s)
	}
	return bits
}
