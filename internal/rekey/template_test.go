package rekey_test

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// What is sealed counts, whatever is delivered of it, and when.
func TestAKeyIsNeededForWhatIsNotDelivered(t *testing.T) {
	bad := "{{ .nothing }}"
	over, ahead := metav1.NewTime(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)), metav1.NewTime(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))
	for name, edit := range map[string]func(*v1alpha1.EncryptedSecret){
		"its template fails": func(o *v1alpha1.EncryptedSecret) {
			o.Spec.Template = &v1alpha1.Template{Data: map[string]v1alpha1.TemplateValue{"a": {Text: &bad}}}
		},
		"expired":       func(o *v1alpha1.EncryptedSecret) { o.Spec.ExpiresAt = &over },
		"not yet valid": func(o *v1alpha1.EncryptedSecret) { o.Spec.NotBefore = &ahead },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			sealed := func(to encrypt.Recipient) *v1alpha1.EncryptedSecret {
				o := object("db", "", map[string]string{})
				edit(o)
				value, err := encrypt.Seal([]byte("x"), encrypt.BindingOf(o, "k"), []encrypt.Recipient{to}, r.now)
				if err != nil {
					t.Fatal(err)
				}
				o.Spec.EncryptedData["k"] = value
				return o
			}
			r.stored = []*v1alpha1.EncryptedSecret{sealed(r.oldR)}
			if got := r.check(); !got.Blocked() || got.NeedCount != 1 {
				t.Errorf("sealed to the old key: %+v", got)
			}
			r.stored = []*v1alpha1.EncryptedSecret{sealed(r.freshR)}
			if got := r.check(); got.Blocked() || got.Opened != 1 || got.UnreadableCount != 0 {
				t.Errorf("sealed to the new one: %+v", got)
			}
		})
	}
}
