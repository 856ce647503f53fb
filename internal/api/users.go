package api

import (
	"context"
	"net/http"

	"github.com/ecodrix/ecod/internal/auth"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// users is the API of a client's dashboard users: for the operator, and for the client itself.
type users struct {
	a      *API
	porter *auth.Porter
}

// UserView is a dashboard user as the API shows it.
type UserView struct {
	ID          string `json:"id"`
	Email       string `json:"email"`
	Name        string `json:"name"`
	Role        string `json:"role" enum:"owner,agent,viewer"`
	Disabled    bool   `json:"disabled" doc:"May not log in."`
	CreatedAt   Time   `json:"createdAt"`
	UpdatedAt   Time   `json:"updatedAt"`
	LastLoginAt *Time  `json:"lastLoginAt" nullable:"true"`
}

func userView(u *auth.User) UserView {
	return UserView{u.ID, u.Email, u.Name, u.Role, u.Disabled, Time{u.CreatedAt}, Time{u.UpdatedAt}, At(u.LastLoginAt)}
}

// RegisterUsers adds the API of dashboard users.
func RegisterUsers(a *API, porter *auth.Porter) {
	s := users{a, porter}
	const tag = "Users"
	const changed = "A member that is absent stays as it is. A new password, and being disabled, end the user's sessions."
	const removed = "The user's sessions end."
	Admin(a, Op{Route: "POST /api/clients/{code}/users", ID: "createClientUser", Tag: tag, Summary: "Create a dashboard user of a client", Status: http.StatusCreated}, s.adminCreate)
	Admin(a, Op{Route: "GET /api/clients/{code}/users", ID: "listClientUsers", Tag: tag, Summary: "List a client's dashboard users by e-mail address"}, s.adminList)
	Admin(a, Op{Route: "GET /api/clients/{code}/users/{id}", ID: "getClientUser", Tag: tag, Summary: "Read a client's dashboard user"}, s.adminGet)
	Admin(a, Op{Route: "PATCH /api/clients/{code}/users/{id}", ID: "updateClientUser", Tag: tag, Summary: "Change a client's dashboard user", Description: changed}, s.adminUpdate)
	Admin(a, Op{Route: "DELETE /api/clients/{code}/users/{id}", ID: "deleteClientUser", Tag: tag, Summary: "Delete a client's dashboard user", Description: removed}, s.adminRemove)

	const own = " Owners cannot disable, demote or delete themselves: 409 user.self."
	Client(a, Op{Route: "POST /api/users", ID: "createUser", Tag: tag, Summary: "Create a dashboard user", Status: http.StatusCreated, Role: RoleOwner}, s.create)
	Client(a, Op{Route: "GET /api/users", ID: "listUsers", Tag: tag, Summary: "List dashboard users by e-mail address", Role: RoleOwner}, s.list)
	Client(a, Op{Route: "GET /api/users/{id}", ID: "getUser", Tag: tag, Summary: "Read a dashboard user", Role: RoleOwner}, s.get)
	Client(a, Op{Route: "PATCH /api/users/{id}", ID: "updateUser", Tag: tag, Summary: "Change a dashboard user", Description: changed + own, Role: RoleOwner}, s.update)
	Client(a, Op{Route: "DELETE /api/users/{id}", ID: "deleteUser", Tag: tag, Summary: "Delete a dashboard user", Description: removed + own, Role: RoleOwner}, s.remove)
}

// NewUserBody is a new user.
type NewUserBody struct {
	Email    string `json:"email" minLength:"3" maxLength:"254" example:"dana@example.com" doc:"One user a client; case does not matter."`
	Password string `json:"password" minLength:"10" maxLength:"256" doc:"At least 10 characters; common ones are refused."`
	Role     string `json:"role" enum:"owner,agent,viewer" doc:"A viewer reads, an agent works, an owner also manages users."`
	Name     string `json:"name" minLength:"1" maxLength:"200" example:"Dana Roy"`
}

// UserPatch is what is to be different of a user.
type UserPatch struct {
	Email    *string `json:"email,omitempty" minLength:"3" maxLength:"254"`
	Password *string `json:"password,omitempty" minLength:"10" maxLength:"256"`
	Role     *string `json:"role,omitempty" enum:"owner,agent,viewer"`
	Name     *string `json:"name,omitempty" minLength:"1" maxLength:"200"`
	Disabled *bool   `json:"disabled,omitempty"`
}

type createdUser struct {
	Location string `header:"Location"`
	Body     UserView
}

type newUserInput struct{ Body NewUserBody }

func (s users) create(ctx context.Context, tn *tenant.Tenant, in *newUserInput) (*createdUser, error) {
	return s.add(ctx, tn, "/api/users/", in.Body)
}

func (s users) add(ctx context.Context, tn *tenant.Tenant, at string, b NewUserBody) (*createdUser, error) {
	u, err := s.porter.AddUser(ctx, tn, auth.NewUser{Email: b.Email, Name: b.Name, Role: b.Role, Password: secret.Text(b.Password)}, Once(ctx))
	if err != nil {
		return nil, err
	}
	return &createdUser{at + u.ID, userView(u)}, nil
}

func (s users) list(ctx context.Context, tn *tenant.Tenant, in *struct{ Page }) (*Answer[List[UserView]], error) {
	at, err := in.afterIn("users", auth.Users.Schema, "email")
	if err != nil {
		return nil, err
	}
	rows, err := s.porter.ListUsers(ctx, tn, at, in.Limit+1)
	if err != nil {
		return nil, err
	}
	return ListOf(rows, in.Page, "users", func(u *auth.User) store.Cursor { return store.Cursor{Value: u.Email, ID: u.ID} }, userView), nil
}

func (s users) get(ctx context.Context, tn *tenant.Tenant, in *ByID) (*Answer[UserView], error) {
	u, err := s.porter.User(ctx, tn, in.ID)
	if err != nil {
		return nil, err
	}
	return OK(userView(u))
}

type userPatchInput struct {
	ByID
	Body UserPatch
}

func (s users) update(ctx context.Context, tn *tenant.Tenant, in *userPatchInput) (*Answer[UserView], error) {
	b := in.Body
	if (b.Disabled != nil && *b.Disabled) || (b.Role != nil && *b.Role != RoleOwner) {
		if err := notSelf(ctx, in.ID); err != nil {
			return nil, err
		}
	}
	return s.change(ctx, tn, in.ID, b)
}

func (s users) change(ctx context.Context, tn *tenant.Tenant, id string, b UserPatch) (*Answer[UserView], error) {
	c := auth.Change{Email: b.Email, Name: b.Name, Role: b.Role, Disabled: b.Disabled}
	if b.Password != nil {
		p := secret.Text(*b.Password)
		c.Password = &p
	}
	u, err := s.porter.ChangeUser(ctx, tn, id, c)
	if err != nil {
		return nil, err
	}
	return OK(userView(u))
}

func (s users) remove(ctx context.Context, tn *tenant.Tenant, in *ByID) (*struct{}, error) {
	if err := notSelf(ctx, in.ID); err != nil {
		return nil, err
	}
	return nil, s.porter.RemoveUser(ctx, tn, in.ID)
}

// notSelf keeps the last owner from shutting itself out.
func notSelf(ctx context.Context, id string) error {
	if c := CallerOf(ctx); c.Kind == KindSession && c.UserID == id {
		return fault.New(fault.Conflict, "user.self", "You cannot do this to yourself. Ask another owner.")
	}
	return nil
}

// of opens the database of the client that an operator names.
func (s users) of(ctx context.Context, code string) (*tenant.Tenant, func(), error) {
	code, ok := tenant.Code(code)
	if !ok {
		return nil, nil, tenant.ErrUnknown()
	}
	return s.a.cfg.Open(ctx, code)
}

type adminNewUserInput struct {
	ByCode
	Body NewUserBody
}

func (s users) adminCreate(ctx context.Context, in *adminNewUserInput) (*createdUser, error) {
	tn, release, err := s.of(ctx, in.Code)
	if err != nil {
		return nil, err
	}
	defer release()
	return s.add(ctx, tn, "/api/clients/"+tn.Code+"/users/", in.Body)
}

type adminUsersInput struct {
	ByCode
	Page
}

func (s users) adminList(ctx context.Context, in *adminUsersInput) (*Answer[List[UserView]], error) {
	tn, release, err := s.of(ctx, in.Code)
	if err != nil {
		return nil, err
	}
	defer release()
	return s.list(ctx, tn, &struct{ Page }{in.Page})
}

// ByCodeAndID is the input of what is about one record of one client; embed it.
type ByCodeAndID struct {
	ByCode
	ByID
}

func (s users) adminGet(ctx context.Context, in *ByCodeAndID) (*Answer[UserView], error) {
	tn, release, err := s.of(ctx, in.Code)
	if err != nil {
		return nil, err
	}
	defer release()
	return s.get(ctx, tn, &in.ByID)
}

type adminUserPatchInput struct {
	ByCodeAndID
	Body UserPatch
}

func (s users) adminUpdate(ctx context.Context, in *adminUserPatchInput) (*Answer[UserView], error) {
	tn, release, err := s.of(ctx, in.Code)
	if err != nil {
		return nil, err
	}
	defer release()
	return s.change(ctx, tn, in.ID, in.Body)
}

func (s users) adminRemove(ctx context.Context, in *ByCodeAndID) (*struct{}, error) {
	tn, release, err := s.of(ctx, in.Code)
	if err != nil {
		return nil, err
	}
	defer release()
	return nil, s.porter.RemoveUser(ctx, tn, in.ID)
}
