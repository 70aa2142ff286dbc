#include "owner.h"

#include "borrow.h"
#include "scope.h"
#include "task.h"
#include "thread.h"

/* Follows ended tasks, and scopes to their openers, up to the node that really has the say. Caller holds rt->graph. */
static tether_node_t *effective(tether_node_t *node)
{
    while (node != NULL) {
        if (node->kind == TETHER_NODE_TASK && !tether_task_ended((tether_task_t *)node))
            break;
        node = load_relaxed(&node->owner);
    }
    return node;
}

/* May `from` dispose of the guard? Not of a scope's child: it stays one to its end. Caller holds rt->graph. */
static bool is_free(const tether_task_t *task, const tether_node_t *from)
{
    tether_node_t *owner = load_relaxed(&task->node.owner);
    return !(owner != NULL && owner->kind == TETHER_NODE_SCOPE) && effective(owner) == from;
}

bool tether_owner_is(tether_task_t *task, const tether_node_t *node)
{
    if (load_relaxed(&task->node.owner) == node)
        return true;
    tether_lock(&task->node.rt->graph);
    bool is = effective(load_relaxed(&task->node.owner)) == node;
    tether_unlock(&task->node.rt->graph);
    return is;
}

bool tether_owner_holds(tether_thread_t *thread, tether_slot_t *slot, tether_node_t **other)
{
    tether_node_t *here = tether_owner_current(thread);
    if (load_relaxed(slot) == here)
        return true; /* so it is not being changed: only what runs here does that */
    tether_runtime_t *rt = load_relaxed(&thread->rt);
    tether_lock(&rt->graph); /* whose it is may give it away at this moment, and be gone */
    tether_node_t *owner = load_relaxed(slot);
    bool holds = effective(owner) == here;
    if (!holds && owner != NULL)
        add_relaxed(&owner->refs, 1);
    tether_unlock(&rt->graph);
    *other = owner;
    return holds;
}

static bool assign(tether_thread_t *thread, tether_slot_t *slot, tether_node_t *to, bool by_force)
{
    tether_runtime_t *rt = load_relaxed(&thread->rt);
    if (to != NULL)
        add_relaxed(&to->refs, 1);
    tether_lock(&rt->graph);
    tether_node_t *before = load_relaxed(slot);
    bool may = by_force || effective(before) == tether_owner_current(thread);
    if (may)
        store_relaxed(slot, to);
    tether_unlock(&rt->graph);
    tether_node_unref(thread, may ? before : to);
    return may;
}

bool tether_owner_give(tether_thread_t *thread, tether_slot_t *slot, tether_node_t *to)
{
    return assign(thread, slot, to, false);
}

void tether_owner_assign(tether_thread_t *thread, tether_slot_t *slot, tether_node_t *to) { assign(thread, slot, to, true); }

static bool above(const tether_task_t *task, const tether_node_t *node)
{
    for (; node != NULL; node = load_relaxed(&node->owner))
        if (node == &task->node)
            return true;
    return false;
}

bool tether_owner_above(const tether_task_t *task, tether_node_t *node)
{
    tether_lock(&task->node.rt->graph);
    bool is = above(task, node);
    tether_unlock(&task->node.rt->graph);
    return is;
}

/* Points the task at a new owner; returns the former one, whose reference is the caller's to drop after unlocking. */
static tether_node_t *change_owner(tether_task_t *task, tether_node_t *to)
{
    tether_node_t *before = load_relaxed(&task->node.owner);
    if (to != NULL)
        add_relaxed(&to->refs, 1);
    store_relaxed(&task->node.owner, to);
    return before;
}

tether_status_t tether_owner_move(tether_thread_t *thread, tether_task_t **tasks, tether_node_t **scratch, size_t n,
                                  tether_node_t *to, size_t *culprit)
{
    if (n == 0)
        return TETHER_OK;
    tether_runtime_t *rt = tasks[0]->node.rt;
    tether_node_t *from = tether_owner_current(thread);
    tether_lock(&rt->graph);
    for (size_t i = 0; i < n; i++) {
        bool ours = is_free(tasks[i], from);
        if (!ours || above(tasks[i], to)) {
            tether_unlock(&rt->graph);
            *culprit = i;
            return ours ? TETHER_CYCLE : TETHER_NOT_OWNER;
        }
    }
    for (size_t i = 0; i < n; i++)
        scratch[i] = change_owner(tasks[i], to);
    tether_unlock(&rt->graph);
    for (size_t i = 0; i < n; i++)
        tether_node_unref(thread, scratch[i]);
    return TETHER_OK;
}

void tether_owner_claim(tether_thread_t *thread, tether_task_t **tasks, size_t n, const tether_task_t *from)
{
    tether_node_t *to = tether_owner_current(thread);
    for (size_t i = 0; i < n; i++) {
        tether_node_t *before = NULL;
        tether_lock(&tasks[i]->node.rt->graph);
        bool take = load_relaxed(&tasks[i]->node.owner) == &from->node && !above(tasks[i], to);
        if (take)
            before = change_owner(tasks[i], to);
        tether_unlock(&tasks[i]->node.rt->graph);
        if (take)
            tether_node_unref(thread, before);
    }
}

tether_status_t tether_owner_send(tether_thread_t *thread, tether_task_t *task, tether_scope_t *scope)
{
    tether_runtime_t *rt = task->node.rt;
    tether_lock(&rt->graph);
    bool ours = is_free(task, tether_owner_current(thread));
    if (!ours || above(task, &scope->node)) {
        tether_unlock(&rt->graph);
        return ours ? TETHER_CYCLE : TETHER_NOT_OWNER;
    }
    tether_node_t *dropped = change_owner(task, &scope->node);
    tether_unlock(&rt->graph);
    /* We own the guard, so nobody else moves it meanwhile. */
    tether_status_t status = tether_scope_adopt(scope, task);
    if (status != TETHER_OK) {
        tether_lock(&rt->graph);
        /* Whom it came from may have ended, and have been given to it meanwhile: then it is ours. */
        tether_node_t *to = above(task, dropped) ? tether_owner_current(thread) : dropped;
        tether_node_t *back = change_owner(task, above(task, to) ? NULL : to);
        tether_unlock(&rt->graph);
        tether_node_unref(thread, back);
    }
    tether_node_unref(thread, dropped);
    return status;
}

tether_task_t *tether_owner_parent(tether_task_t *task)
{
    tether_lock(&task->node.rt->graph);
    tether_task_t *parent = (tether_task_t *)effective(load_relaxed(&task->node.owner));
    if (parent != NULL)
        tether_task_ref(parent);
    tether_unlock(&task->node.rt->graph);
    return parent;
}

void tether_owner_settle(tether_thread_t *thread, tether_task_t *task)
{
    tether_node_t *before = load_relaxed(&task->node.owner);
    /* The owner may move the guard at this moment, end and be freed, so outside the lock `before` is only compared. The
     * frequent cases need no lock: the root's, a scope's (which stay), and a task that ran in place above its owner. */
    if (before == NULL || (load_relaxed(&task->word) & TETHER_F_SCOPED) || (task->below && before == &task->below->node))
        return;
    tether_lock(&task->node.rt->graph);
    before = load_relaxed(&task->node.owner);
    tether_node_t *now = before && before->kind == TETHER_NODE_TASK ? effective(before) : before;
    if (now != before) {
        if (now != NULL)
            add_relaxed(&now->refs, 1);
        store_relaxed(&task->node.owner, now);
    }
    tether_unlock(&task->node.rt->graph);
    if (now != before)
        tether_node_unref(thread, before);
}

/* Is anything that runs on the calling thread's stack a child, at any depth of scopes, of this scope? Then the scope
 * waits for us. */
static bool waits_for_us(const tether_thread_t *us, const tether_scope_t *scope)
{
    for (const tether_task_t *mine = load_relaxed(&us->top); mine; mine = mine->below)
        for (const tether_node_t *n = &mine->node; n; n = load_relaxed(&n->owner))
            if (n == &scope->node)
                return true;
    return false;
}

/* The task that `node` waits for is looked up by its thread; NULL where the way ends. Caller holds rt->graph. */
static tether_thread_t *runs_on(const tether_node_t *node)
{
    if (node == NULL || node->kind != TETHER_NODE_TASK)
        return NULL;
    const tether_task_t *task = (const tether_task_t *)node;
    return tether_state(tether_task_word(task)) == TETHER_RUNNING ? load_acquire(&task->thread) : NULL;
}

/* ---- deadlocks --------------------------------------------------------------------------------------------------- */

/* A walk along what is waited for: does it come to a thread that is about to sleep? Every wait needs all of what it waits for,
 * so one way back is enough. The edges go from threads: whatever runs in place above a task is what that task waits for.
 * rt->graph is held all along, so no thread whose wait is noted gets on; what is on a way back therefore stays as it is when its
 * book has been unlocked. Claims that were met and not looked into yet are in a list: no recursion, ways may be long. */
typedef struct {
    const tether_thread_t *to;
    tether_claim_t *todo, *at;
    const tether_node_t *last; /* the way's last piece begins here */
    uint64_t number;
    tether_thread_t *root;     /* who could give back what the root has, if that is one thread */
    bool root_known;
    bool into_scopes;
    bool scope_ahead;
} walk_t;

static void remember(walk_t *walk, tether_claim_t *claim, const tether_node_t *via)
{
    if (claim->walk == walk->number)
        return;
    claim->walk = walk->number;
    claim->walk_from = walk->at;
    claim->walk_via = via;
    claim->walk_todo = walk->todo;
    walk->todo = claim;
}

/* From a node that is waited for, as far as there are joins. */
static bool follow(walk_t *walk, const tether_node_t *node)
{
    enum { STEPS = 1 << 20 }; /* more than there can be threads: a cycle without us, which its own members break, ends here */
    const tether_node_t *at = node;
    for (int step = 0; at != NULL && step < STEPS; step++) {
        if (at->kind == TETHER_NODE_SCOPE) {
            walk->scope_ahead = true;
            if (!walk->into_scopes || !waits_for_us(walk->to, (const tether_scope_t *)at))
                return false;
            walk->last = node;
            return true;
        }
        const tether_thread_t *where = runs_on(at);
        if (where == NULL)
            return false;
        if (where == walk->to) {
            walk->last = node;
            return true;
        }
        if (where->waits_claim != NULL) {
            if (at->kind == TETHER_NODE_TASK && tether_task_cancelled((const tether_task_t *)at))
                return false; /* it is about to wake up: waits for borrows can be cancelled */
            remember(walk, where->waits_claim, node);
            return false;
        }
        at = where->waits_for;
    }
    return false;
}

/* The root is all of the program's threads, and any of them could give back what it has: it is a place on a way only when there
 * is just one. */
static tether_thread_t *lonely_root(walk_t *walk)
{
    if (!walk->root_known) {
        walk->root_known = true;
        for (tether_thread_t *t = load_relaxed(&walk->to->rt)->threads; t; t = t->next) {
            if (t->crew || atomic_load_explicit(&t->exited, memory_order_acquire))
                continue;
            if (walk->root != NULL)
                return walk->root = NULL;
            walk->root = t;
        }
    }
    return walk->root;
}

/* A claim that stands before ours, too, goes on when its task does: it is granted and then given back, or given up. */
static bool blocker_leads(tether_loan_t *loan, tether_claim_t *waiter, void *arg)
{
    walk_t *walk = arg;
    if (loan->state == TETHER_LOAN_ENDED)
        return false; /* a raw view keeps it, and nobody knows who has that */
    tether_task_t *holder = load_relaxed(&loan->holder);
    if (holder != NULL)
        return follow(walk, &holder->node);
    const tether_thread_t *thread = waiter != NULL ? waiter->thread : lonely_root(walk);
    if (thread == NULL)
        return false;
    if (thread == walk->to) {
        walk->last = NULL;
        return true;
    }
    if (thread->waits_claim != NULL)
        remember(walk, thread->waits_claim, NULL);
    return thread->waits_claim == NULL && follow(walk, thread->waits_for);
}

static bool leads_back(walk_t *walk, const tether_node_t *node, tether_claim_t *claim)
{
    walk->number = ++load_relaxed(&walk->to->rt)->walks;
    walk->todo = walk->at = NULL;
    if (claim != NULL)
        remember(walk, claim, NULL);
    else if (follow(walk, node))
        return true;
    while ((walk->at = walk->todo) != NULL) {
        walk->todo = walk->at->walk_todo;
        tether_book_t *book = walk->at->loan->book;
        tether_lock(&book->lock);
        bool leads = tether__claim_blocked(walk->at, blocker_leads, walk);
        tether_unlock(&book->lock);
        if (leads)
            return true;
    }
    return false;
}

static void tell_piece(const walk_t *walk, const tether_node_t *at, tether_wait_t *how)
{
    while (at != NULL && at->kind == TETHER_NODE_TASK && how->cycle_len < TETHER_CYCLE_MAX) {
        tether_task_t *task = (tether_task_t *)at;
        tether_task_ref(task);
        how->cycle[how->cycle_len++] = task;
        const tether_thread_t *where = runs_on(at);
        at = where != NULL && where != walk->to && where->waits_claim == NULL ? where->waits_for : NULL;
    }
}

/* The tasks on the way that was found. It is linked backwards. */
static void tell_way(const walk_t *walk, tether_wait_t *how)
{
    tether_claim_t *first = NULL;
    for (tether_claim_t *c = walk->at, *from; c != NULL; c = from) {
        from = c->walk_from;
        c->walk_from = first;
        first = c;
    }
    how->cycle_len = 0;
    for (const tether_claim_t *c = first; c != NULL; c = c->walk_from)
        tell_piece(walk, c->walk_via, how);
    tell_piece(walk, walk->last, how);
}

/* Leaving a scope waits for all its children, so a cycle may be closed by the leaver; but it is the child's wait that must
 * fail; and a wait may close one through a scope that somebody else leaves, which the walk does not enter. So whoever
 * waits, directly or not, for us looks again. */
static void rouse_waiters(tether_thread_t *us)
{
    walk_t walk = {.to = us};
    for (tether_thread_t *t = load_relaxed(&us->rt)->threads; t; t = t->next)
        if (t != us && (t->waits_for != NULL || t->waits_claim != NULL) && leads_back(&walk, t->waits_for, t->waits_claim))
            tether_unpark(&t->parker);
}

tether_status_t tether_owner_wait(tether_thread_t *thread, tether_node_t *node, tether_claim_t *claim, tether_wait_t *how)
{
    walk_t walk = {.to = thread, .into_scopes = true, .root_known = how->strangers};
    tether_lock(&load_relaxed(&thread->rt)->graph);
    bool again = thread->waits_for == node && thread->waits_claim == claim;
    thread->waits_for = NULL;
    thread->waits_claim = NULL;
    bool deadlock = leads_back(&walk, node, claim);
    if (deadlock) {
        tell_way(&walk, how);
    } else {
        thread->waits_for = node;
        thread->waits_claim = claim;
        if (walk.scope_ahead && !again)
            rouse_waiters(thread);
    }
    tether_unlock(&load_relaxed(&thread->rt)->graph);
    return deadlock ? TETHER_DEADLOCK : TETHER_OK;
}

void tether_owner_awake(tether_thread_t *thread)
{
    tether_lock(&load_relaxed(&thread->rt)->graph);
    thread->waits_for = NULL;
    thread->waits_claim = NULL;
    tether_unlock(&load_relaxed(&thread->rt)->graph);
}
