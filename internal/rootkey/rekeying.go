package rootkey

import (
	"context"
	"errors"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

func (k *Keeper) Rekeying() (Rekey, bool) { return Rekey{}, false }
func (k *Keeper) Staged() []encrypt.KeyID { return nil }
func (k *Keeper) StageRekey(ctx context.Context, text []byte) (encrypt.KeyID, error) {
	return "", errors.ErrUnsupported
}
func (k *Keeper) UnstageRekey(ctx context.Context) {}
func (k *Keeper) StartRekey(ctx context.Context, text []byte, by string) (r Rekey, began bool, err error) {
	return Rekey{}, false, errors.ErrUnsupported
}
func (k *Keeper) AbortRekey(ctx context.Context, by string) (Rekey, error) {
	return Rekey{}, errors.ErrUnsupported
}
func (k *Keeper) FinishRekey(ctx context.Context, from, to encrypt.KeyID) error {
	return errors.ErrUnsupported
}
