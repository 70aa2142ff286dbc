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

bool tether_owner_acts_as(tether_runtime_t *rt, tether_node_t *owner, const tether_node_t *node)
{
    if (owner == node)
        return true;
    tether_lock(&rt->graph);
    bool is = effective(owner) == node;
    tether_unlock(&rt->graph);
    return is;
}

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
        tether_node_t *back = change_owner(task, dropped);
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

enum { LOOK_MOST = 1024 }; /* links that a walk follows */

/* Leaving a scope waits for all its children, so a cycle may be closed by the leaver; but it is the child's join that must
 * fail; and a wait may close one through a scope that somebody else leaves, which the walk does not enter. So whoever
 * waits, directly or not, for us looks again; and so does whoever waits for a borrow. */
static void rouse_waiters(tether_runtime_t *rt, const tether_thread_t *us)
{
    tether_lock(&rt->threads_lock);
    for (tether_thread_t *t = rt->threads; t; t = t->next) {
        if (t != us && t->waits_claim != NULL)
            tether_unpark(&t->parker);
        const tether_node_t *at = t->waits_for;
        for (int steps = 0; t != us && at != NULL && steps < LOOK_MOST; steps++) {
            const tether_thread_t *where = runs_on(at);
            if (where == us)
                tether_unpark(&t->parker);
            at = where != NULL && where != us ? where->waits_for : NULL;
        }
    }
    tether_unlock(&rt->threads_lock);
}

/* A walk along what is waited for, from where the caller is about to sleep: does it come back? rt->graph is held all along.
 * The edges go from threads: whatever runs in place above a task is what that task waits for. A node or claim that somebody
 * sleeps for is alive, because that is noted and taken back under this lock. */
typedef struct {
    tether_thread_t *us;
    tether_task_t **cycle; /* the way, without references */
    size_t room, found;
    uint64_t number;
    unsigned depth;        /* of borrows that wait for borrows */
    bool scope_ahead;
} walk_t;

static bool claim_leads_to_us(walk_t *walk, tether_claim_t *claim);

static bool thread_leads_to_us(walk_t *walk, const tether_node_t *at)
{
    enum { STEPS = 1 << 20 }; /* more than there can be threads: a cycle without us, which its own members break, ends here */
    size_t found = walk->found;
    for (int step = 0; at != NULL && step < STEPS; step++) {
        if (at->kind == TETHER_NODE_SCOPE) {
            walk->scope_ahead = true;
            if (waits_for_us(walk->us, (const tether_scope_t *)at))
                return true;
            break;
        }
        tether_thread_t *where = runs_on(at);
        if (where == NULL)
            break;
        if (walk->found < walk->room)
            walk->cycle[walk->found++] = (tether_task_t *)at;
        if (where == walk->us)
            return true;
        if (where->waits_claim != NULL) {
            if (claim_leads_to_us(walk, where->waits_claim))
                return true;
            break;
        }
        at = where->waits_for;
    }
    walk->found = found;
    return false;
}

/* The root is all of the program's threads: any of them could give its loans back, so there is an edge only if there is one. */
static bool is_alone(tether_runtime_t *rt, const tether_thread_t *thread)
{
    tether_lock(&rt->threads_lock);
    bool alone = true;
    for (const tether_thread_t *t = rt->threads; t && alone; t = t->next)
        alone = t == thread || t->crew || load_relaxed(&t->exited);
    tether_unlock(&rt->threads_lock);
    return alone;
}

static bool blocker_leads_to_us(tether_loan_t *loan, tether_claim_t *waiter, void *arg)
{
    walk_t *walk = arg;
    if (waiter != NULL)
        return claim_leads_to_us(walk, waiter);
    if (loan->state == TETHER_LOAN_ENDED)
        return false; /* a raw view keeps it, and nobody knows who has that */
    tether_task_t *holder = load_relaxed(&loan->holder);
    if (holder != NULL)
        return thread_leads_to_us(walk, &holder->node);
    tether_thread_t *taker = loan->taker;
    if (!is_alone(load_relaxed(&walk->us->rt), taker))
        return false;
    if (taker == walk->us)
        return true;
    return taker->waits_claim ? claim_leads_to_us(walk, taker->waits_claim) : thread_leads_to_us(walk, taker->waits_for);
}

/* Only a walk holds two books, and there is one walk at a time. */
static bool look_into(walk_t *walk, tether_claim_t *claim)
{
    enum { DEPTH = 256 };
    if (claim->walk == walk->number || walk->depth == DEPTH)
        return false;
    claim->walk = walk->number;
    tether_book_t *book = claim->loan->book;
    bool outer = book->walked;
    if (!outer)
        tether_lock(&book->lock);
    book->walked = true;
    walk->depth++;
    bool leads = tether__claim_blocked(claim, blocker_leads_to_us, walk);
    walk->depth--;
    book->walked = outer;
    if (!outer)
        tether_unlock(&book->lock);
    return leads;
}

static bool claim_leads_to_us(walk_t *walk, tether_claim_t *claim)
{
    return claim->thread == walk->us || look_into(walk, claim);
}

static tether_status_t note_wait(tether_thread_t *thread, tether_node_t *node, tether_claim_t *claim, tether_task_t **cycle,
                                 size_t room, size_t *n)
{
    tether_runtime_t *rt = load_relaxed(&thread->rt);
    walk_t walk = {.us = thread, .cycle = cycle, .room = room};
    tether_lock(&rt->graph);
    bool again = thread->waits_for == node && thread->waits_claim == claim;
    thread->waits_for = NULL;
    thread->waits_claim = NULL;
    walk.number = ++rt->walks;
    bool deadlock = claim ? look_into(&walk, claim) : thread_leads_to_us(&walk, node);
    if (deadlock) {
        for (size_t i = 0; i < walk.found; i++)
            tether_task_ref(cycle[i]);
        *n = walk.found;
    } else {
        thread->waits_for = node;
        thread->waits_claim = claim;
        if (walk.scope_ahead && !again)
            rouse_waiters(rt, thread);
    }
    tether_unlock(&rt->graph);
    return deadlock ? TETHER_DEADLOCK : TETHER_OK;
}

tether_status_t tether_owner_wait(tether_thread_t *thread, tether_node_t *node, tether_task_t **cycle, size_t room,
                                  size_t *n)
{
    return note_wait(thread, node, NULL, cycle, room, n);
}

tether_status_t tether_owner_wait_claim(tether_thread_t *thread, tether_claim_t *claim, tether_task_t **cycle, size_t room,
                                        size_t *n)
{
    return note_wait(thread, NULL, claim, cycle, room, n);
}
